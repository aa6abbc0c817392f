from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin

from worker.school import models

admin.site.register(models.Account, UserAdmin)
admin.site.register([models.Unit, models.Learner, models.Lesson, models.Attempt, models.Feedback])
