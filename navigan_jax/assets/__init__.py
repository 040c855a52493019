"""Networks that come with the package, by the names under which configs use them."""

GENERATORS = {"cars": "cars.safetensors"}
GAUGES = {"cars": "cars_gauges.safetensors"}
