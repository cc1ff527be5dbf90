# Written by hand after Django 5.2.19, on 2026-11-21

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('labeler', '0021_run_queue'),
    ]

    operations = [
        migrations.AddField(
            model_name='project',
            name='simulated_labelers',
            field=models.BooleanField(default=False, help_text='Programs with a hidden taste rank what waits, for the demo and research.'),
        ),
        migrations.AddField(
            model_name='round',
            name='whole',
            field=models.BooleanField(default=False, help_text='Launches stage after stage by itself, and stops where a person decides.'),
        ),
        migrations.AddField(
            model_name='round',
            name='whole_by',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='round',
            name='halted',
            field=models.CharField(blank=True, help_text='Why it does so no more, where nobody said so.', max_length=500),
        ),
        migrations.AlterField(
            model_name='request',
            name='kind',
            field=models.CharField(choices=[('compare', 'Compare'), ('sample', 'Sample'), ('score', 'Score'), ('order', 'Order'), ('harvest', 'Harvest'), ('simulate', 'Simulate'), ('try', 'Try')], max_length=10),
        ),
        migrations.CreateModel(
            name='Gate',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('stage', models.CharField(choices=[('ranking', 'enough is ranked'), ('reward', 'the reward model will do'), ('policy', 'the policy goes to the face-off')], max_length=10)),
                ('about', models.JSONField(blank=True, default=dict)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('round', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='gates', to='labeler.round')),
            ],
            options={
                'ordering': ['pk'],
                'constraints': [models.UniqueConstraint(fields=('round', 'stage'), name='a_gate_once_a_round')],
            },
        ),
    ]
