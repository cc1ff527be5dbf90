import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("labeler", "0006_imports")]

    operations = [
        migrations.AddField(
            model_name="quintet",
            name="scored_by",
            field=models.ForeignKey(
                blank=True,
                help_text="The reward model that is so unsure of it.",
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to="labeler.checkpoint",
            ),
        ),
        migrations.AlterField(
            model_name="request",
            name="kind",
            field=models.CharField(
                choices=[
                    ("compare", "Compare"),
                    ("sample", "Sample"),
                    ("score", "Score"),
                    ("order", "Order"),
                ],
                max_length=10,
            ),
        ),
    ]
