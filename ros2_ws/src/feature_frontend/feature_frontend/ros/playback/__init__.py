"""Publishing images at their pace, and launching a front-end for them."""
