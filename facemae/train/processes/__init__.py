"""The processes of a run: started, grouped, watched over."""
