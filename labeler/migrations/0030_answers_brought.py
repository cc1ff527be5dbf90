import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('labeler', '0029_set_aside'),
    ]

    operations = [
        migrations.AddField(
            model_name='prompt',
            name='answer_brought_by',
            field=models.ForeignKey(blank=True, editable=False, help_text='Which gave this answer to a prompt that was here without one.', null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='answers', to='labeler.import'),
        ),
    ]
