"""Every address. The first segment names the view module, the template folder and the test file."""

from django.contrib import admin
from django.urls import path
from django.views.generic import RedirectView

from labeler.views import (
    account,
    checkpoints,
    datasets,
    health,
    people,
    projects,
    prompts,
    rank,
    rounds,
    runs,
)

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="projects"), name="home"),
    path("health/", health.health, name="health"),
    path("account/sign-in/", account.sign_in, name="sign_in"),
    path("account/sign-out/", account.sign_out, name="sign_out"),
    path("account/password/", account.password, name="password"),
    path("account/join/<str:token>/", account.join, name="join"),
    path("people/", people.people, name="people"),
    path("people/invite/", people.invite, name="invite"),
    path("people/invitations/<int:pk>/withdraw/", people.withdraw, name="invitation_withdraw"),
    path("people/<int:pk>/projects/", people.person_projects, name="person_projects"),
    path("people/<int:pk>/active/", people.active, name="person_active"),
    path("projects/", projects.projects, name="projects"),
    path("projects/new/", projects.new, name="project_new"),
    path("projects/<slug:slug>/", projects.project, name="project"),
    path("projects/<slug:slug>/edit/", projects.edit, name="project_edit"),
    path("prompts/<slug:slug>/", prompts.prompts, name="prompts"),
    path("prompts/<slug:slug>/add/", prompts.add, name="prompts_add"),
    path("prompts/<slug:slug>/<int:pk>/delete/", prompts.delete, name="prompt_delete"),
    path("rank/<slug:slug>/", rank.rank, name="rank"),
    path("rank/<slug:slug>/submit/", rank.submit, name="rank_submit"),
    path("rank/<slug:slug>/hold/", rank.hold, name="rank_hold"),
    path("rounds/<slug:slug>/", rounds.rounds, name="rounds"),
    path("rounds/<slug:slug>/<int:number>/close/", rounds.close, name="round_close"),
    path("rounds/<slug:slug>/<int:number>/reopen/", rounds.reopen, name="round_reopen"),
    path("runs/", runs.runs, name="runs"),
    path("runs/new/<slug:slug>/<str:kind>/", runs.new, name="run_new"),
    path("runs/<int:pk>/", runs.run, name="run"),
    path("runs/<int:pk>/live/", runs.live, name="run_live"),
    path("runs/<int:pk>/steps/", runs.steps, name="run_steps"),
    path("runs/<int:pk>/cancel/", runs.cancel, name="run_cancel"),
    path("runs/<int:pk>/compare/", runs.compare, name="run_compare"),
    path("checkpoints/", checkpoints.checkpoints, name="checkpoints"),
    path("checkpoints/<int:pk>/", checkpoints.checkpoint, name="checkpoint"),
    path("datasets/<slug:slug>/", datasets.datasets, name="datasets"),
    path("datasets/<slug:slug>/export/<str:form>/", datasets.export, name="dataset_export"),
    path("datasets/<slug:slug>/<int:pk>/", datasets.dataset, name="dataset"),
    path("datasets/<slug:slug>/<int:pk>/file/", datasets.file, name="dataset_file"),
    path("admin/", admin.site.urls),
]
