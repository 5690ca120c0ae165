"""Publishing images at a given rate, and launching a front-end for them."""
