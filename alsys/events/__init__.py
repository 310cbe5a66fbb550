"""Events: everything that happened in a campaign, as values. State = fold(events).

Durable events go to the store's log; transient ones (work handed out, workers joining) only drive the ledger, so after
a restart work that was in flight is simply pending again.
"""

from alsys.events.base import EVENTS as EVENTS
from alsys.events.base import Event as Event
from alsys.events.campaign import *
from alsys.events.frames import *
from alsys.events.hessians import *
from alsys.events.labels import *
from alsys.events.models import *
from alsys.events.serialization import LOST_EVENT as LOST_EVENT
from alsys.events.serialization import decode as decode
from alsys.events.serialization import decode_all as decode_all
from alsys.events.serialization import encode as encode
