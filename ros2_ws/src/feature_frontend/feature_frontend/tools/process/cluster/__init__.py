"""`process` on a Ray cluster, and the front-end as an actor of Ray Data. Needs Ray: nothing else imports this."""
