"""Training of ALIKED (Zhao et al., IEEE TIM 2023): losses of Section V, data of VI-A."""
