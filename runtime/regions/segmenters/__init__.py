"""What makes a mask of a box, points or a scribble."""
