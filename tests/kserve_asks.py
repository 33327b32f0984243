"""What KServe's own clients say of a server, as JSON: `python kserve_asks.py HTTP_URL GRPC_ADDRESS MODEL`.

A program of its own, for KServe's package needs older releases of libraries that this project uses in newer ones.
"""

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput

X = np.array([[0.5, 1.0], [2.0, -3.0], [0.0, 0.0]], np.float32)


def question(model, *, binary, names=("label", "probabilities", "labels")):
    given = InferInput("features", list(X.shape), "FP32")
    given.set_data_from_numpy(X, binary_data=binary)
    outputs = [RequestedOutput(name, {"binary_data": binary}) for name in names]
    return InferRequest(model, [given], request_id="q", request_outputs=outputs)


def said(answer):
    outputs = {each.name: each.as_numpy() for each in answer.outputs}
    texts = {
        name: [e.decode() if isinstance(e, bytes) else str(e) for e in outputs[name].ravel()] for name in ("label", "labels")
    }
    found = {"model": answer.model_name, "version": answer.model_version, "id": answer.id}
    return found | texts | {"probabilities": outputs["probabilities"].tolist()}


async def by_rest(url, model):
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    facts = {
        "live": await client.is_server_live(url),
        "ready": await client.is_server_ready(url),
        "model_ready": await client.is_model_ready(url, model),
        "other_ready": await client.is_model_ready(url, "other"),
        "json": said(await client.infer(url, question(model, binary=False), model_name=model)),
        "binary": said(await client.infer(url, question(model, binary=True), model_name=model)),
    }
    try:
        await client.infer(url, {"inputs": []}, model_name=model)
    except Exception as error:
        facts["error"] = str(error)
    await client.close()
    return facts


async def by_grpc(address, model):
    async with InferenceGRPCClient(address, channel_args=[("grpc.enable_retries", 0)]) as client:
        facts = {
            "live": await client.is_server_live(),
            "ready": await client.is_server_ready(),
            "model_ready": await client.is_model_ready(model),
            "json": said(await client.infer(question(model, binary=False))),
            "binary": said(await client.infer(question(model, binary=True))),
        }
        try:
            await client.is_model_ready("other")
        except Exception as error:
            facts["error"] = error.code().name
        return facts


async def main(url, address, model):
    print(json.dumps({"rest": await by_rest(url, model), "grpc": await by_grpc(address, model)}))


asyncio.run(main(*sys.argv[1:]))
