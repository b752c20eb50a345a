"""What must happen: free energies, phases, rates and exact exit times. No torch here."""
