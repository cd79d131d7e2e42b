"""Networks and volumes of containers: what is remembered of them, and the switch between the containers' cards.

Records are synchronous and may be used by any thread; what moves frames belongs to one event loop.
"""
