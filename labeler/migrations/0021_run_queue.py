from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("labeler", "0020_harvests")]

    operations = [
        migrations.AddField(
            model_name="run",
            name="ahead",
            field=models.PositiveIntegerField(
                default=0, help_text="Above 0 it was moved to the front of the queue; the largest goes first."
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
                    ("harvest", "Harvest"),
                    ("try", "Try"),
                ],
                max_length=10,
            ),
        ),
    ]
