"""One algorithm a file: build(config, data) -> Method. Methods never import each other."""
