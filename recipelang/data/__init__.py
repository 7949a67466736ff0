"""Datasets: reading, rendering, tokenising, supervision, packing, order. numpy only."""
