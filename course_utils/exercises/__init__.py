"""The checks of the lessons' exercises, one module a lesson, and the frame that they share."""
