"""Networks: a body that turns inputs into features, and the linear head that we own."""
