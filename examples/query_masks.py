"""A run's masks in SQL: shards are plain Parquet, and DuckDB reads them where they are, a bucket included.

    python examples/query_masks.py [CONFIG]

From a bucket a query fetches the columns that it names and leaves the PNGs where they are. Endpoint, region and
credentials are those that raypipe uses, as DuckDB is given its filesystem. DuckDB's own extension does the same faster
for large sets:

    INSTALL httpfs; INSTALL aws; CREATE SECRET (TYPE s3, PROVIDER credential_chain);
"""

import sys

import duckdb

import raypipe
from raypipe import storage

run = raypipe.open_run(sys.argv[1] if len(sys.argv) > 1 else "demo/run/config.yaml")
database = duckdb.connect()
if "://" in run.masks.uri:
    database.register_filesystem(storage.filesystem(run.masks.uri)[0])

print(f"masks: {run.masks.glob}")
database.read_parquet(run.masks.glob).create_view("masks")
database.register("manifest", run.manifest.table)
database.execute("SET VARIABLE names = $names", {"names": ["background", *run.classes]})  # class id 0 comes first
database.execute("""
    CREATE VIEW found AS
    SELECT image_id, predicted_iou, getvariable('names')[class_id + 1] AS class, area, confidence
    FROM (SELECT image_id, predicted_iou, unnest(class_ids) AS class_id, unnest(areas) AS area,
          unnest(mean_confidences) AS confidence FROM masks)
""")

print("What is in the masks, and how sure they are:")
database.sql("""
    SELECT class, count(*) AS images, round(avg(area), 3) AS mean_area, round(avg(confidence), 3) AS mean_confidence
    FROM found GROUP BY class ORDER BY images DESC, class
""").show()

print("Labels of which the mask shows nothing, or hardly anything: worth a look.")
database.sql("""
    WITH wanted AS (SELECT image_id, unnest(labels) AS class FROM manifest)
    SELECT class, count(*) AS labelled, count(*) FILTER (coalesce(area, 0) < 0.005) AS missed
    FROM wanted SEMI JOIN masks USING (image_id) LEFT JOIN found USING (image_id, class)
    GROUP BY class ORDER BY missed DESC, class
""").show()

print("The masks that are probably best, as a list of images for a training (1 is an image without labels):")
database.sql("""
    SELECT image_id, round(predicted_iou, 3) AS predicted_iou, image_uri
    FROM masks JOIN manifest USING (image_id) WHERE predicted_iou < 1 ORDER BY predicted_iou DESC LIMIT 5
""").show()
