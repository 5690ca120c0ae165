"""Training of SiLK (Gleize et al., ICCV 2023) and ALIKED (Zhao et al., IEEE TIM 2023); inference needs none of it."""
