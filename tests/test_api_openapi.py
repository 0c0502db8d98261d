"""The OpenAPI document: complete, and true of whatever schemathesis sends by it."""

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance, response_headers_conformance, response_schema_conformance, status_code_conformance)
from golden_views import row
from serving import DAY, HOUR, Asking, Keys, books, serving, write

from measurement.local.loaded import append
from measurement.local.warehouse import Warehouse
from measurement.model.bookings import BOOKINGS
from measurement.model.tables import ATTRIBUTION, DELIVERY, INVALID_TRAFFIC
from measurement.serving.app import create_app
from measurement.serving.warehouses import DuckDbReports

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys") / "keys.json")


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> DuckDbReports:
    out = write(tmp_path_factory.mktemp("served") / "out", books())
    flights = ((0, 9), (0, 1), (20, 30))  # days behind DAY: running, ended, not begun
    booked = [row("bookings", booking_id=f"b{n}", advertiser_id="a", campaign_id="c1", metric="impressions", goal=100, starts_at=DAY + begins * 24 * HOUR,
                  ends_at=DAY + ends * 24 * HOUR) for n, (begins, ends) in enumerate(flights)]
    append(Warehouse(out), BOOKINGS, lambda _: booked)
    return DuckDbReports(out)


@pytest.fixture(scope="module")
def api(reports, keys) -> Iterator[Asking]:
    with serving(reports, keys.ring()) as asking:
        yield asking


@pytest.fixture(scope="module")
def document(reports, keys) -> dict:
    return create_app(reports, keys.ring()).openapi()


def operation_of(api: Asking, path: str):
    return schemathesis.openapi.from_url(f"http://127.0.0.1:{api.port}/openapi.json")[path]["GET"]


@pytest.mark.parametrize("table", ["delivery", "attribution", "invalid_traffic"])
@pytest.mark.parametrize("grain", ["hour", "day"])
def test_rows_are_as_the_document_says(api, keys, table, grain):
    query = {"from": "2026-03-01T00:00:00Z", "to": "2026-03-08T00:00:00Z", "grain": grain}
    case = operation_of(api, f"/v1/advertisers/{{advertiser_id}}/{table}").Case(path_parameters={"advertiser_id": "a"}, query=query)
    response = case.call_and_validate(headers={"Authorization": f"Bearer {keys.sales}"}, checks=CHECKS)
    assert response.status_code == 200 and response.json()["rows"]


@pytest.mark.parametrize("table, by", [("delivery", "campaign_id,window_start"), ("attribution", "model,currency"), ("invalid_traffic", "reason,status")])
def test_sums_are_as_the_document_says(api, keys, table, by):
    query = {"from": "2026-03-01T00:00:00Z", "to": "2026-03-08T00:00:00Z", "by": by}
    case = operation_of(api, f"/v1/advertisers/{{advertiser_id}}/{table}/sums").Case(path_parameters={"advertiser_id": "a"}, query=query)
    response = case.call_and_validate(headers={"Authorization": f"Bearer {keys.sales}"}, checks=CHECKS)
    assert response.status_code == 200 and response.json()["rows"]


@pytest.mark.parametrize("path, parameters", [("/v1/pacing", {}), ("/v1/advertisers/{advertiser_id}/pacing", {"path_parameters": {"advertiser_id": "a"}})])
def test_pacing_is_as_the_document_says(api, keys, path, parameters):
    response = operation_of(api, path).Case(**parameters).call_and_validate(headers={"Authorization": f"Bearer {keys.sales}"}, checks=CHECKS)
    assert response.status_code == 200 and len(response.json()["rows"]) == 3


def test_an_export_is_as_the_document_says(api, keys):
    query = {"from": "2026-03-01T00:00:00Z", "to": "2026-03-08T00:00:00Z", "table": "delivery"}
    case = operation_of(api, "/v1/advertisers/{advertiser_id}/exports").Case(path_parameters={"advertiser_id": "a"}, query=query)
    assert case.call_and_validate(headers={"Authorization": f"Bearer {keys.sales}"}, checks=CHECKS).status_code == 200


OF = "/v1/advertisers/{advertiser_id}"


def test_every_route_of_the_interface_is_in_the_document_and_the_page_is_not(document):
    assert set(document["paths"]) == {*PATHS}


PATHS = [*(f"{OF}/{table}{sums}" for table in ("delivery", "attribution", "invalid_traffic") for sums in ("", "/sums")), f"{OF}/pacing", f"{OF}/exports", "/v1/pacing",
         "/v1/advertisers", "/healthz", "/readyz"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_what_the_document_says_holds_of_what_is_answered(api, keys, path, mode):
    """Status, media type, headers and body of each answer are documented, for good and bad parameters alike."""
    operation = operation_of(api, path)
    if mode is GenerationMode.NEGATIVE and not path.startswith("/v1"):
        return  # there is no parameter to be wrong

    @settings(max_examples=40, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def asked(case):
        case.headers = {name: value for name, value in case.headers.items() if name.lower() != "authorization"}
        case.call_and_validate(headers={"Authorization": f"Bearer {keys.sales}"}, checks=CHECKS)

    asked()


@pytest.mark.parametrize("table", [DELIVERY, ATTRIBUTION, INVALID_TRAFFIC])
def test_every_column_stands_in_the_document_with_its_meaning(document, table):
    answer = document["paths"][f"/v1/advertisers/{{advertiser_id}}/{table.name}"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    rows = document["components"]["schemas"][answer["$ref"].rpartition("/")[2]]["properties"]["rows"]["items"]["$ref"].rpartition("/")[2]
    properties = document["components"]["schemas"][rows]["properties"]
    assert list(properties) == [c.name for c in table.columns]
    for column in table.columns:
        assert properties[column.name]["description"].startswith(column.description)


def test_every_error_is_documented_as_a_problem_and_every_read_needs_a_key(document):
    for path, methods in document["paths"].items():
        assert list(methods) == ["get"]
        responses = methods["get"]["responses"]
        assert "422" not in responses
        for status, response in responses.items():
            if int(status) >= 400:
                assert list(response["content"]) == ["application/problem+json"], (path, status)
        if path.startswith("/v1"):
            assert methods["get"]["security"] == [{"key": []}] and {"400", "401", "403", "429", "503"} <= set(responses)
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
