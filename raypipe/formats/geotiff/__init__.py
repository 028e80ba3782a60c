"""GeoTIFF: masks that lie on the map as their images do."""
