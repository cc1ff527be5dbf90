from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('labeler', '0031_requests_kept'),
    ]

    operations = [
        migrations.AddField(
            model_name='import',
            name='contradicted',
            field=models.PositiveIntegerField(default=0, help_text='Lines whose prompt was here with another answer, which stays.'),
        ),
    ]
