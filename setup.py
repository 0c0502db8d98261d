from setuptools import find_packages, setup

_SERVE = ["fastapi>=0.165,<1", "uvicorn>=0.54,<1", "uvloop>=0.23,<1"]  # the report API

setup(
    name="ad-measurement",
    version="0.1.0",
    description="Streaming ad measurement on Apache Beam: exact counts that money can be billed on",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["measurement*", "jobs*", "schemas*", "config*"]),
    package_data={"measurement.serving": ["page/*"], "schemas": ["*.avsc"], "config": ["*.yaml", "prometheus/*.yml", "grafana/*.json"]},
    install_requires=[
        "apache-beam[gcp]>=2.77,<2.78",  # Prism's options and the unbounded-source wrapper are guarded per release
        "crawler-user-agents>=1.67,<2",
        "duckdb>=2.0,<3",
        "fastavro[codecs]>=1.13,<2",
        "fsspec>=2025.9",
        "google-cloud-bigquery>=3.47,<4",
        "google-cloud-bigquery-storage>=2.43,<3",
        "google-cloud-bigtable>=2.50,<3",
        "google-cloud-pubsub>=2.44,<3",
        "numba>=0.68,<0.70",
        "numpy>=2.2,<3",
        "orjson>=3.11,<4",
        "prometheus-client>=0.26,<1",
        "pyarrow>=25.0,<27",
        "pyyaml>=6.0,<7",
        "requests>=2.34,<3",
        "rich>=15.0,<16",
        "sqlglot>=30.30,<31",
        "typer>=0.29,<1",
        "tzdata>=2026.1",  # zone names, where the system has none
        "xlsxwriter>=3.2,<4",
    ],
    extras_require={
        "serve": _SERVE,
        "test": [*_SERVE, "axe-playwright-python>=0.1.8,<0.2", "hypothesis>=6.170,<7", "mmh3>=5.3,<6", "openpyxl>=3.1,<4", "pandas>=3.0,<4",
                 "playwright>=1.65,<2", "psutil>=7,<8", "pytest>=9.2,<10", "schemathesis>=4.32,<5"],
        "bench": [*_SERVE, "polars>=2.1,<3", "psutil>=7,<8", "pyruhvro>=0.4,<1"],
        "gcs": ["gcsfs>=2025.9"],  # exports to gs://
    },
    entry_points={"console_scripts": ["measurement=measurement.cli:main"]},
)
