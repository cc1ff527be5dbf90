import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('labeler', '0016_evaluations'),
    ]

    operations = [
        migrations.CreateModel(
            name='Flag',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('reason', models.CharField(choices=[('reward model', 'the reward model disagrees')], max_length=20)),
                ('step', models.PositiveIntegerField(blank=True, help_text='At which measured step it did.', null=True)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('ranking', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='flags', to='labeler.ranking')),
                ('run', models.ForeignKey(blank=True, help_text='Whose reward model disagrees.', null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='labeler.run')),
            ],
            options={
                'ordering': ['pk'],
                'constraints': [models.UniqueConstraint(fields=('ranking', 'reason'), name='a_ranking_once_for_a_reason')],
            },
        ),
    ]
