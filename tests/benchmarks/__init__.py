"""How good the reduction is: simulated nights, reduced and compared with their truth, beside the goals and Panacea."""
