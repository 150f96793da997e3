"""One dictionary: name -> the small-image network of that name."""

from course_utils.models.lenet import LeNet5

MODELS = {"lenet": LeNet5}
