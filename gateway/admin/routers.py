"""All routers of the admin API, and the bodies that its document names."""

from gateway.admin.credit import CREDIT_BODIES, credit_router
from gateway.admin.keys import KEY_BODIES, keys_router
from gateway.admin.limits import LIMIT_BODIES, ceilings_router, limits_router
from gateway.admin.logs import logs_router
from gateway.admin.organisations import ORGANISATION_BODIES, customer_router, organisations_router
from gateway.admin.plans import PLAN_BODIES, plans_router, prices_router
from gateway.admin.usage import monthly_usage_router
from gateway.admin.users import USER_BODIES, invites_router, members_router, workspace_roles_router
from gateway.admin.workspaces import WORKSPACE_BODIES, workspaces_router

admin_routers = (
    keys_router,
    workspaces_router,
    members_router,
    workspace_roles_router,
    invites_router,
    limits_router,
    ceilings_router,
    monthly_usage_router,
    credit_router,
    customer_router,
    logs_router,
    organisations_router,
    plans_router,
    prices_router,
)
ADMIN_BODIES = (
    *KEY_BODIES,
    *WORKSPACE_BODIES,
    *USER_BODIES,
    *LIMIT_BODIES,
    *CREDIT_BODIES,
    *ORGANISATION_BODIES,
    *PLAN_BODIES,
)
