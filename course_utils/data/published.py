"""What is known of the published data sets."""

from typing import NamedTuple


class Published(NamedTuple):
    """What is known of a published set: names in the sources, (C, H, W), sizes and content digests of its splits."""

    torchvision: str  # class in torchvision.datasets
    folder: str  # in torchvision's root
    hub: str  # repository and configuration on the hub
    columns: tuple[str, str]
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    sizes: dict[str, int]
    digests: dict[str, str]
    megabytes: int  # of the download


CIFAR100_CLASSES = tuple(
    """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
    camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup
    dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower
    leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid
    otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray
    road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
    sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm
    """.split()
)
CIFAR100_COARSE_CLASSES = tuple(
    """
    aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices
    household_furniture insects large_carnivores large_man-made_outdoor_things
    large_natural_outdoor_scenes large_omnivores_and_herbivores medium_mammals non-insect_invertebrates
    people reptiles small_mammals trees vehicles_1 vehicles_2
    """.split()
)
CIFAR100_COARSE = tuple(  # fine label -> coarse label
    int(label)
    for label in """
    4 1 14 8 0 6 7 7 18 3 3 14 9 18 7 11 3 9 7 11 6 11 5 10 7
    6 13 15 3 15 0 11 1 10 12 14 16 9 11 5 5 19 8 8 15 13 14 17 18 10
    16 4 17 4 2 0 17 4 18 17 10 3 2 12 12 16 12 1 9 19 2 10 0 1 16
    12 9 13 15 13 16 19 2 4 6 19 5 5 8 19 18 1 2 15 6 0 17 8 14 13
    """.split()
)
FASHION_CLASSES = tuple(
    "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot".split(",")
)
CIFAR10_CLASSES = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())

PUBLISHED = {
    "mnist": Published(
        *("MNIST", "MNIST/raw", "ylecun/mnist/mnist", ("image", "label"), (1, 28, 28), tuple("0123456789")),
        {"train": 60_000, "test": 10_000},
        {
            "train": "54e1ab866c9484947dd4821c52bb7a43938f555d6b046be6af55247f8e6ffc64",
            "test": "97b756d55950f1841ebd48df7379b9b2fc87a10d63e08d6213dad41d564e8508",
        },
        12,
    ),
    "fashion": Published(
        *("FashionMNIST", "FashionMNIST/raw", "zalando-datasets/fashion_mnist/fashion_mnist"),
        *(("image", "label"), (1, 28, 28), FASHION_CLASSES),
        {"train": 60_000, "test": 10_000},
        {
            "train": "fb88a2f5c1b590c907f860b47803d006e4fa7b276cdb551799af9d443accdff7",
            "test": "0b381379398a0943a88bf3864ff3f5177903dcf178030b4b74c495294b38fa7c",
        },
        31,
    ),
    "cifar100": Published(
        *("CIFAR100", "cifar-100-python", "uoft-cs/cifar100/cifar100", ("img", "fine_label"), (3, 32, 32)),
        CIFAR100_CLASSES,
        {"train": 50_000, "test": 10_000},
        {
            "train": "eb2821554fda8c7f4668a001ee774fc1a64e3583c2729a86c673281a0c1943b1",
            "test": "ed2f54d86be17f2d8cf60b6023ddd15bfdc63dc3aaf9ac4aae466fb982227a9c",
        },
        169,
    ),
    "cifar10": Published(
        *("CIFAR10", "cifar-10-batches-py", "uoft-cs/cifar10/plain_text", ("img", "label"), (3, 32, 32)),
        CIFAR10_CLASSES,
        {"train": 50_000, "test": 10_000},
        {
            "train": "fc36ff26702a9efdf08d3de274034c378032d3423bf7dd6c1022bebe6a7b810a",
            "test": "11be7cf3ed0bf1df2a473c0d4d3db6eafcac4518b49a5b4224077d754106b38d",
        },
        170,
    ),
}
