"""All routers of the admin API, and the bodies that its document names."""

from gateway.admin.keys import KEY_BODIES, keys_router
from gateway.admin.limits import LIMIT_BODIES, ceilings_router, limits_router
from gateway.admin.workspaces import WORKSPACE_BODIES, workspaces_router

admin_routers = (keys_router, workspaces_router, limits_router, ceilings_router)
ADMIN_BODIES = (*KEY_BODIES, *WORKSPACE_BODIES, *LIMIT_BODIES)
