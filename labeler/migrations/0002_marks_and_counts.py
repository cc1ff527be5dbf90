"""What pages count with and what is to be counted anew, kept in the same transaction as what changed, whichever
code changed it. One statement, however many rows: bulk imports pay once a batch. EXECUTE plans anew each time: a
plan made while the tables were empty would stay. All of it may be carried out again where it is there already.
"""

from django.db import migrations

# Quintets whose agreement is no longer what was tallied.
MARK_RANKINGS = """
CREATE OR REPLACE FUNCTION labeler_mark_rankings() RETURNS trigger LANGUAGE plpgsql AS $mark$
DECLARE
    rows text := CASE TG_OP
        WHEN 'INSERT' THEN 'SELECT quintet_id FROM is_now WHERE purpose <> $$practice$$'
        WHEN 'DELETE' THEN 'SELECT quintet_id FROM was'
        ELSE 'SELECT unnest(ARRAY[was.quintet_id, is_now.quintet_id]) FROM was JOIN is_now USING (id)
              WHERE (was.quintet_id, was.labeler_id, was.purpose, was.current, was.simulated, was.ranks,
                     was.shown, was.seconds, was.focus_seconds)
                 IS DISTINCT FROM
                    (is_now.quintet_id, is_now.labeler_id, is_now.purpose, is_now.current, is_now.simulated,
                     is_now.ranks, is_now.shown, is_now.seconds, is_now.focus_seconds)'
        END;
BEGIN
    EXECUTE 'INSERT INTO labeler_stalequintet (project_id, quintet_id)
             SELECT project_id, id FROM labeler_quintet WHERE id IN (' || rows || ')';
    RETURN NULL;
END $mark$;
CREATE OR REPLACE TRIGGER mark_new_rankings AFTER INSERT ON labeler_ranking
    REFERENCING NEW TABLE AS is_now FOR EACH STATEMENT EXECUTE FUNCTION labeler_mark_rankings();
CREATE OR REPLACE TRIGGER mark_changed_rankings AFTER UPDATE ON labeler_ranking
    REFERENCING OLD TABLE AS was NEW TABLE AS is_now FOR EACH STATEMENT EXECUTE FUNCTION labeler_mark_rankings();
CREATE OR REPLACE TRIGGER mark_deleted_rankings AFTER DELETE ON labeler_ranking
    REFERENCING OLD TABLE AS was FOR EACH STATEMENT EXECUTE FUNCTION labeler_mark_rankings();
"""

# Who is excluded, or is no longer: everything that they ranked in the project.
MARK_MEMBERSHIPS = """
CREATE OR REPLACE FUNCTION labeler_mark_membership() RETURNS trigger LANGUAGE plpgsql AS $mark$
DECLARE
    about labeler_membership;
BEGIN
    about := CASE WHEN TG_OP = 'INSERT' THEN NEW ELSE OLD END;
    INSERT INTO labeler_stalequintet (project_id, quintet_id)
    SELECT DISTINCT quintet.project_id, quintet.id
    FROM labeler_ranking ranking JOIN labeler_quintet quintet ON quintet.id = ranking.quintet_id
    WHERE ranking.labeler_id = about.user_id AND quintet.project_id = about.project_id;
    RETURN NULL;
END $mark$;
CREATE OR REPLACE TRIGGER mark_excluded AFTER UPDATE OF excluded_at ON labeler_membership FOR EACH ROW
    WHEN ((OLD.excluded_at IS NULL) <> (NEW.excluded_at IS NULL)) EXECUTE FUNCTION labeler_mark_membership();
CREATE OR REPLACE TRIGGER mark_excluded_at_once AFTER INSERT ON labeler_membership FOR EACH ROW
    WHEN (NEW.excluded_at IS NOT NULL) EXECUTE FUNCTION labeler_mark_membership();
CREATE OR REPLACE TRIGGER mark_excluded_until_now AFTER DELETE ON labeler_membership FOR EACH ROW
    WHEN (OLD.excluded_at IS NOT NULL) EXECUTE FUNCTION labeler_mark_membership();
"""

MARK_QUINTETS = """
CREATE OR REPLACE FUNCTION labeler_mark_quintet() RETURNS trigger LANGUAGE plpgsql AS $mark$
BEGIN
    INSERT INTO labeler_stalequintet (project_id, quintet_id) VALUES (NEW.project_id, NEW.id);
    RETURN NULL;
END $mark$;
CREATE OR REPLACE TRIGGER mark_quintet AFTER UPDATE OF round_id, arm, known_ranks ON labeler_quintet FOR EACH ROW
    WHEN ((OLD.round_id, OLD.arm, OLD.known_ranks) IS DISTINCT FROM (NEW.round_id, NEW.arm, NEW.known_ranks))
    EXECUTE FUNCTION labeler_mark_quintet();
"""

# How many each has ranked in each round, and today: with hidden checks and the time, without practice and without
# what was confirmed in a harvest. A change of many rankings at once looks at each of them once.
COUNT_RANKINGS = """
CREATE OR REPLACE FUNCTION labeler_count_rankings() RETURNS trigger LANGUAGE plpgsql AS $count$
DECLARE
    this_day date := (now() AT TIME ZONE 'UTC')::date;
    about text := '(%s, {0}.quintet_id, {0}.labeler_id, {0}.purpose, {0}.current,
        ({0}.created_at AT TIME ZONE $$UTC$$)::date, coalesce({0}.focus_seconds, 0))';
    added text := replace(replace(about, '%s', '1'), '{0}', 'is_now');
    taken text := replace(replace(about, '%s', '-1'), '{0}', 'was');
    rows text := 'SELECT side.* FROM ' || CASE TG_OP
        WHEN 'INSERT' THEN 'is_now, LATERAL (VALUES ' || added
        WHEN 'DELETE' THEN 'was, LATERAL (VALUES ' || taken
        ELSE 'was JOIN is_now USING (id), LATERAL (VALUES ' || added || ', ' || taken
        END || ') AS side(n, quintet_id, labeler_id, purpose, current, day, seconds)';
    sums text := 'SELECT round_id, labeler_id, coalesce(sum(n) FILTER (WHERE counted.purpose = $$work$$), 0) AS ranked,
            coalesce(sum(n) FILTER (WHERE day = $1), 0) AS today,
            coalesce(sum(n * seconds) FILTER (WHERE day = $1), 0) AS seconds
        FROM (' || rows || ') counted JOIN labeler_quintet quintet ON quintet.id = quintet_id
        WHERE current AND counted.purpose NOT IN ($$practice$$, $$harvest$$) GROUP BY 1, 2
        HAVING sum(n) <> 0 OR bool_or(day = $1) OR bool_or(counted.purpose <> $$work$$)';
BEGIN
    IF TG_OP = 'DELETE' THEN
        EXECUTE 'UPDATE labeler_contribution mine SET ranked = mine.ranked + sums.ranked,
            today = mine.today + CASE WHEN mine.day = $1 THEN sums.today ELSE 0 END,
            seconds = mine.seconds + CASE WHEN mine.day = $1 THEN sums.seconds ELSE 0 END
            FROM (' || sums || ') sums WHERE mine.round_id = sums.round_id AND mine.labeler_id = sums.labeler_id'
            USING this_day;
    ELSE
        EXECUTE 'INSERT INTO labeler_contribution AS mine (round_id, labeler_id, ranked, filled, day, today, seconds)
            SELECT round_id, labeler_id, ranked, 0, $1, today, seconds FROM (' || sums || ') sums ORDER BY 1, 2
            ON CONFLICT (round_id, labeler_id) DO UPDATE SET ranked = mine.ranked + EXCLUDED.ranked, day = $1,
                today = CASE WHEN mine.day = $1 THEN mine.today ELSE 0 END + EXCLUDED.today,
                seconds = CASE WHEN mine.day = $1 THEN mine.seconds ELSE 0 END + EXCLUDED.seconds'
            USING this_day;
    END IF;
    RETURN NULL;
END $count$;
CREATE OR REPLACE TRIGGER count_new_rankings AFTER INSERT ON labeler_ranking
    REFERENCING NEW TABLE AS is_now FOR EACH STATEMENT EXECUTE FUNCTION labeler_count_rankings();
CREATE OR REPLACE TRIGGER count_changed_rankings AFTER UPDATE ON labeler_ranking
    REFERENCING OLD TABLE AS was NEW TABLE AS is_now FOR EACH STATEMENT EXECUTE FUNCTION labeler_count_rankings();
CREATE OR REPLACE TRIGGER count_deleted_rankings AFTER DELETE ON labeler_ranking
    REFERENCING OLD TABLE AS was FOR EACH STATEMENT EXECUTE FUNCTION labeler_count_rankings();
"""

# A place that is done without a labeler is closed, and not wanted; one that is filled opens or closes none.
COUNT_PLACES = """
CREATE OR REPLACE FUNCTION labeler_count_places() RETURNS trigger LANGUAGE plpgsql AS $count$
DECLARE
    here text := ' quintet_id, labeler_id, done FROM ';
    rows text := CASE TG_OP
        WHEN 'INSERT' THEN 'SELECT 1 AS n,' || here || 'is_now WHERE purpose = $$work$$'
        WHEN 'DELETE' THEN 'SELECT -1 AS n,' || here || 'was WHERE purpose = $$work$$'
        ELSE 'SELECT side.* FROM was JOIN is_now USING (id), LATERAL (VALUES
                (-1, was.quintet_id, was.labeler_id, was.done), (1, is_now.quintet_id, is_now.labeler_id, is_now.done)
            ) AS side(n, quintet_id, labeler_id, done)
            WHERE is_now.purpose = $$work$$ AND (was.done OR is_now.done)
                AND (was.done, was.labeler_id) IS DISTINCT FROM (is_now.done, is_now.labeler_id)'
        END;
    counted text := ' FROM (' || rows || ') counted JOIN labeler_quintet quintet ON quintet.id = quintet_id ';
    filled text := 'SELECT round_id, labeler_id, sum(n) AS filled' || counted
        || 'WHERE done AND labeler_id IS NOT NULL GROUP BY 1, 2 HAVING sum(n) <> 0';
    opens_or_closes boolean := true;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        -- Most changes are leases: nothing to count.
        IF NOT EXISTS (SELECT FROM is_now WHERE done UNION ALL SELECT FROM was WHERE done) THEN
            RETURN NULL;
        END IF;
        opens_or_closes := EXISTS (SELECT FROM is_now WHERE done AND labeler_id IS NULL
            UNION ALL SELECT FROM was WHERE done AND labeler_id IS NULL);
    END IF;
    IF opens_or_closes THEN
        EXECUTE 'UPDATE labeler_round round SET wanted = round.wanted + sums.wanted
            FROM (SELECT round_id, sum(n) AS wanted' || counted || 'WHERE NOT done OR labeler_id IS NOT NULL
                GROUP BY 1 HAVING sum(n) <> 0) sums WHERE round.id = sums.round_id';
    END IF;
    IF TG_OP = 'DELETE' THEN
        EXECUTE 'UPDATE labeler_contribution mine SET filled = mine.filled + sums.filled
            FROM (' || filled || ') sums WHERE mine.round_id = sums.round_id AND mine.labeler_id = sums.labeler_id';
    ELSE
        EXECUTE 'INSERT INTO labeler_contribution AS mine (round_id, labeler_id, ranked, filled, day, today, seconds)
            SELECT round_id, labeler_id, 0, filled, (now() AT TIME ZONE $$UTC$$)::date, 0, 0
            FROM (' || filled || ') sums ORDER BY 1, 2
            ON CONFLICT (round_id, labeler_id) DO UPDATE SET filled = mine.filled + EXCLUDED.filled';
    END IF;
    RETURN NULL;
END $count$;
CREATE OR REPLACE TRIGGER count_new_places AFTER INSERT ON labeler_place
    REFERENCING NEW TABLE AS is_now FOR EACH STATEMENT EXECUTE FUNCTION labeler_count_places();
CREATE OR REPLACE TRIGGER count_changed_places AFTER UPDATE ON labeler_place
    REFERENCING OLD TABLE AS was NEW TABLE AS is_now FOR EACH STATEMENT EXECUTE FUNCTION labeler_count_places();
CREATE OR REPLACE TRIGGER count_deleted_places AFTER DELETE ON labeler_place
    REFERENCING OLD TABLE AS was FOR EACH STATEMENT EXECUTE FUNCTION labeler_count_places();
"""

# Bytes that do not shrink are not worth the trying.
KEEP_AS_THEY_ARE = """
ALTER TABLE labeler_tally ALTER COLUMN sums SET STORAGE EXTERNAL;
ALTER TABLE labeler_tally ALTER COLUMN replicates SET STORAGE EXTERNAL;
"""

DROP = """
DROP FUNCTION labeler_mark_rankings, labeler_mark_membership, labeler_mark_quintet, labeler_count_rankings,
    labeler_count_places CASCADE;
"""


class Migration(migrations.Migration):

    dependencies = [
        ('labeler', '0001_squashed_0032_contradicted'),
    ]

    operations = [
        migrations.RunSQL(
            MARK_RANKINGS + MARK_MEMBERSHIPS + MARK_QUINTETS + COUNT_RANKINGS + COUNT_PLACES + KEEP_AS_THEY_ARE, DROP
        ),
    ]
