"""Training of SiLK without labels (Gleize et al., ICCV 2023, 3.4, Appendices A and C); inference needs none of it."""
