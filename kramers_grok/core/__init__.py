"""Words: landscape, barrier, region, noise, errors. No torch here."""
