"""The pages."""

from django.urls import path

from transcription.web import keys, shared, views, webhook

urlpatterns = [
    path("", views.dashboard, name="dashboard"),
    path("login/", views.SignIn.as_view(), name="login"),
    path("logout/", views.sign_out, name="logout"),
    path("keys/", keys.mine, name="keys"),
    path("keys/<int:pk>/revoke/", keys.revoke, name="revoke-key"),
    path("s/<str:secret>/", shared.page, name="shared"),
    path("s/<str:secret>/audio/", shared.audio, name="shared-audio"),
    path("s/<str:secret>/transcript.<slug:extension>", shared.text, name="shared-transcript"),
    path("webhook/", webhook.mine, name="webhook"),
    path("webhook/secret/", webhook.renew_secret, name="renew-secret"),
    path("webhook/test/", webhook.send_test, name="test-webhook"),
    path("webhook/log/", webhook.log, name="deliveries"),
    path("webhook/<uuid:pk>/replay/", webhook.replay, name="replay"),
    path("theme/", views.theme, name="theme"),
    path("sample/", views.sample, name="sample"),
    path("offer/", views.offer, name="offer"),
    path("offer/answer/", views.answer_offer, name="answer-offer"),
    path("jobs/<uuid:job_id>/", views.job, name="job"),
    path("jobs/<uuid:job_id>/row/", views.row, name="row"),
    path("jobs/<uuid:job_id>/text/", views.text, name="text"),
    path("jobs/<uuid:job_id>/cancel/", views.cancel, name="cancel"),
    path("jobs/<uuid:job_id>/retry/", views.retry, name="retry"),
    path("jobs/<uuid:job_id>/again/", views.again, name="again"),
    path("jobs/<uuid:job_id>/delete/", views.delete, name="delete"),
]
