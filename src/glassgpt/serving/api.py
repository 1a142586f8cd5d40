"""The page's interface, version 1: what each route reads and answers. The work itself is done elsewhere, in workers.

A model is asked as {"model": ID, "step": STEP or null, ...}, and one with a weight changed by hand as the same with
"change": {"name": PARAMETER, "at": [ROW, COLUMN], "value": NUMBER}. A client that goes away takes its question along:
what has not begun is never done, what is under way ends at its next step.
"""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
from collections import OrderedDict
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from glassgpt import __version__
from glassgpt.evaluation.score import score
from glassgpt.models.change import parameters_of
from glassgpt.models.gpt_torch import as_numpy
from glassgpt.serving.asked import Asked, read_asked
from glassgpt.serving.beams import MOST_BEAMS, MOST_TOKENS, Search
from glassgpt.serving.digits import Digits
from glassgpt.serving.events import Event, EventStream, Json, first_of, gone
from glassgpt.serving.generation import MAX_NEW_TOKENS, Writing
from glassgpt.serving.inside import MAX_ABLATION_TOKENS, MAX_TRACE_TOKENS, MOST_WANTED, PartsQuestion, Wanted
from glassgpt.serving.landscape import LandscapeQuestion
from glassgpt.serving.meaning import MOST_NEIGHBOURS, View, neighbours
from glassgpt.serving.models import MAX_CHANGEABLE, MAX_NUMBERS, MAX_STATES, Models, Served
from glassgpt.serving.reading import MOST_LOGITS, MOST_SCORED, last_asked, logits_after_each
from glassgpt.serving.recipes import MOST_STEPS, recipe_asked
from glassgpt.serving.red import RedQuestion
from glassgpt.serving.refusals import Cancelled, Refusal, answering
from glassgpt.serving.sampler import finite
from glassgpt.serving.tensors import as_float32, tensor_response
from glassgpt.serving.training import Trainings
from glassgpt.serving.worker import Job

MOST_JOBS_KEPT = 64
SECONDS_UNREAD = 30.0  # after which a job that nobody listens to is given up


class Api:
    """Models, trainings, lessons and jobs, and the routes that lead to them."""

    def __init__(self, models: Models) -> None:
        self.models, self.trainings, self.digits = models, Trainings(models), Digits()
        self.jobs: OrderedDict[str, Job] = OrderedDict()

    def routes(self) -> list[Route]:
        asking = {
            "tokenize": self.tokenize,
            "pieces": self.pieces,
            "next": self.next,
            "chain": self.chain,
            "generate": self.generate,
            "beams": self.beams,
            "score": self.score,
            "trace": self.trace,
            "weights": self.weights,
            "ablations": self.ablations,
            "project": self.project,
            "neighbours": self.neighbours,
            "red": self.red,
            "landscape": self.landscape,
            "lessons/digits": self.digit_net,
            "train": self.train,
            "train/{run}/{action}": self.steer,
        }
        looking = {
            "info": self.info,
            "train/{run}/events": self.train_events,
            "train/{run}/frames/{step:int}": self.frame,
            "jobs/{job}/events": self.job_events,
        }
        return [
            *(Route(f"/api/v1/{path}", answering(handler), methods=["GET"]) for path, handler in looking.items()),
            *(Route(f"/api/v1/{path}", answering(handler), methods=["POST"]) for path, handler in asking.items()),
            Route("/api/v1/jobs/{job}", answering(self.drop_job), methods=["DELETE"]),
        ]

    def close(self) -> None:
        """Give up all that is under way, so that every stream ends. It is not waited for."""
        self.trainings.close()
        self.digits.close()
        self.models.close()

    def wait_until_closed(self) -> None:
        self.trainings.wait_until_closed()
        self.digits.wait_until_closed()
        self.models.wait_until_closed()

    # ---- a model's answers ---------------------------------------------------------------------------------------

    async def info(self, request: Request) -> Response:
        limits = {
            "max_states": MAX_STATES,
            "max_trace_tokens": MAX_TRACE_TOKENS,
            "max_ablation_tokens": MAX_ABLATION_TOKENS,
            "max_new_tokens": MAX_NEW_TOKENS,
            "max_beams": MOST_BEAMS,
            "max_beam_tokens": MOST_TOKENS,
            "max_logits": MOST_LOGITS,
            "max_scored_tokens": MOST_SCORED,
            "max_train_steps": MOST_STEPS,
            "max_changeable": MAX_CHANGEABLE,
        }
        models = [served.about() for served in self.models.all_of_them()]
        return Json({"version": __version__, "models": models, "limits": limits})

    async def tokenize(self, request: Request) -> Response:
        asked, served, _ = await self._asked(request)
        text = asked.text("text")
        asked.nothing_else()

        def work() -> Response:
            names = served.names
            ids = names.encode(text)
            piece = {i: {"id": i, "text": names[i], "bytes": list(names.bytes_of(i))} for i in set(ids)}
            return Json({"ids": ids, "pieces": [piece[token] for token in ids]})

        return await answer_of(served.submit(work), request)

    async def pieces(self, request: Request) -> Response:
        asked, served, _ = await self._asked(request)
        ids = asked.ids("ids", served.source.vocab_size, least=0)
        asked.nothing_else()

        def work() -> Response:
            piece = {token: served.names[token] for token in set(ids)}
            return Json({"pieces": [piece[token] for token in ids]})

        return await answer_of(served.submit(work), request)

    async def next(self, request: Request) -> Response:
        """The logits (V,) of what follows, or with "last" (last, V): after each of the last tokens.

        Of a text longer than the model's context its end counts, as for the model.
        """
        asked, served, step = await self._asked(request)
        ids = asked.ids("ids", served.source.vocab_size)
        last = last_asked(asked, len(ids), served.source.vocab_size)
        asked.nothing_else()
        context = ids[-served.source.context_length :]

        def work() -> Response:
            model = served.model(step)
            if last is None:
                (logits,) = np.asarray(model.next_token_logits([context]))
            else:
                logits = logits_after_each(model, ids, last)
            return tensor_response({"logits": as_float32(logits)}, about(served, step) | {"ids": context})

        return await answer_of(served.submit(work), request)

    async def chain(self, request: Request) -> Response:
        """The logits after every full context; beside them how often each token followed it in the run's own text."""
        asked, served, step = await self._asked(request)
        asked.nothing_else()
        V, T = served.source.vocab_size, served.source.context_length
        if served.n_states is None:
            what = f"the model has {V:,}^{T:,} states; {MAX_STATES:,} can be listed, or {MAX_NUMBERS:,} logits"
            raise Refusal("too_big", what, "look at its next tokens instead, or at a smaller model's chain")

        def work() -> Response:
            tables = {"logits": as_float32(served.model(step).context_table())}
            counts = served.counts()
            tables |= {} if counts is None else {"counts": counts}
            return tensor_response(tables, about(served, step) | {"vocab_size": V, "context_length": T})

        return await answer_of(served.submit(work), request)

    async def generate(self, request: Request) -> Response:
        asked, served, step = await self._asked(request)
        writing = Writing.asked(asked, served.source.vocab_size)
        asked.nothing_else()
        job = served.submit(lambda: writing.written(served, step))
        return EventStream(job.events, on_leave=job.cancel)

    async def beams(self, request: Request) -> Response:
        asked, served, step = await self._asked(request)
        search = Search.asked(asked, served.source.vocab_size)
        asked.nothing_else()
        job = served.submit(lambda: search.found(served, step))
        return EventStream(job.events, on_leave=job.cancel)

    async def score(self, request: Request) -> Response:
        """The log-probability of each token after those before it; null for the first, and for what is impossible."""
        asked, served, step = await self._asked(request)
        ids = asked.ids("ids", served.source.vocab_size, most=MOST_SCORED)
        asked.nothing_else()

        def work() -> Response:
            logprobs = score(served.model(step), ids, stride=1).logprobs
            return Json({"logprobs": [None if value is None else finite(value) for value in logprobs]})

        return await answer_of(served.submit(work), request)

    async def trace(self, request: Request) -> Response:
        asked, served, step = await self._asked(request)
        longest = min(MAX_TRACE_TOKENS, served.source.context_length)
        ids = asked.ids("ids", served.source.vocab_size, most=longest)
        names = asked.texts("want", MOST_WANTED)
        asked.nothing_else()
        wanted = Wanted.named(names, served.source.config)

        def work() -> Response:
            found = wanted.looked_up(served.model(step), ids)
            return tensor_response(found, about(served, step) | {"ids": ids, "want": names})

        return await answer_of(served.submit(work), request)

    async def weights(self, request: Request) -> Response:
        """The parameters that "want" names, as they are; the shapes of all are told beside them."""
        asked, served, step = await self._asked(request)
        names = asked.texts("want", MOST_WANTED)
        asked.nothing_else()
        served.refuse_unless_changeable()

        def work() -> Response:
            every = parameters_of(served.model(step))
            if (stray := next((name for name in names if name not in every), None)) is not None:
                raise Refusal("usage", f"want holds {stray[:60]!a}, which is no parameter", "ask with an empty want")
            shapes = {name: list(tensor.shape) for name, tensor in every.items()}
            found = {name: as_float32(as_numpy(every[name])) for name in names}
            return tensor_response(found, about(served, step) | {"shapes": shapes})

        return await answer_of(served.submit(work), request)

    async def project(self, request: Request) -> Response:
        asked, served, step = await self._asked(request)
        view = View.asked(asked, served.source.vocab_size, served.source.context_length)
        asked.nothing_else()
        work = served.submit(lambda: Json(view.seen(served.model(step), served.names)))
        return await answer_of(work, request)

    async def neighbours(self, request: Request) -> Response:
        asked, served, step = await self._asked(request)
        text, n = asked.text("text"), asked.whole("n", 1, MOST_NEIGHBOURS, 10)
        asked.nothing_else()
        work = served.submit(lambda: Json(neighbours(served.model(step), served.names, text, n)))
        return await answer_of(work, request)

    async def _asked(self, request: Request) -> tuple[Asked, Served, int | None]:
        asked = await read_asked(request)
        return asked, *self.models.meant(asked)

    # ---- training ------------------------------------------------------------------------------------------------

    async def train(self, request: Request) -> Response:
        asked = await read_asked(request)
        recipe = await asyncio.to_thread(recipe_asked, asked)
        return Json({"run": self.trainings.begin(recipe).id})

    async def steer(self, request: Request) -> Response:
        training, action = self.trainings[request.path_params["run"]], request.path_params["action"]
        actions = {
            "pause": training.pause,
            "resume": training.resume,
            "step": training.step,
            "stop": training.stop,
        }
        if action not in actions:
            raise Refusal("missing", f"a training can't {action[:20]!a}: it can {', '.join(actions)}")
        actions[action]()
        return Json(training.state())

    async def train_events(self, request: Request) -> Response:
        """All that has happened and will, or with ?after=STEP what came after that step."""
        after = request.query_params.get("after", "-1")
        if not after.removeprefix("-").isdecimal() or len(after) > 10:
            raise Refusal("usage", f"after must be a step, got {after[:20]!a}", "give the last step that you have seen")

        def is_wanted(event: Event) -> bool:
            return event.name not in ("step", "frame") or event.data["step"] > int(after)

        return EventStream(self.trainings[request.path_params["run"]].events, wanted=is_wanted)

    async def frame(self, request: Request) -> Response:
        training, step = self.trainings[request.path_params["run"]], request.path_params["step"]
        if step not in training.frames:
            raise Refusal("missing", f"{training.id} keeps no frame of step {step}", "ask for one that its events name")
        return tensor_response({"logits": training.frames[step]}, {"run": training.id, "step": step})

    # ---- lessons -------------------------------------------------------------------------------------------------

    async def digit_net(self, request: Request) -> Response:
        return await answer_of(self.digits.asked(await read_asked(request)), request)

    # ---- jobs ----------------------------------------------------------------------------------------------------

    async def red(self, request: Request) -> Response:
        asked, served, step = await self._asked(request)
        question = RedQuestion.asked(asked, served)
        asked.nothing_else()
        return self._begin(served.submit(lambda: question.answered(served, step)))

    async def ablations(self, request: Request) -> Response:
        asked, served, step = await self._asked(request)
        question = PartsQuestion.asked(asked, served)
        asked.nothing_else()
        return self._begin(served.submit(lambda: question.answered(served, step)))

    async def landscape(self, request: Request) -> Response:
        asked, served, step = await self._asked(request)
        question = LandscapeQuestion.asked(asked, served)
        asked.nothing_else()
        return self._begin(served.submit(lambda: question.answered(served, step)))

    def _begin(self, job: Job) -> Response:
        """Keep a job under a name, by which its events are read; the oldest of those that are done are forgotten."""
        asyncio.get_running_loop().call_later(SECONDS_UNREAD, cancel_if_unread, job)  # its client may have left
        name = secrets.token_hex(8)
        self.jobs[name] = job
        for old in [name for name, job in self.jobs.items() if job.is_done][: max(0, len(self.jobs) - MOST_JOBS_KEPT)]:
            del self.jobs[old]
        return Json({"job": name})

    async def job_events(self, request: Request) -> Response:
        job = self._job(request)

        def leave() -> None:
            if not job.events.n_readers:
                job.cancel()

        return EventStream(job.events, on_leave=leave)

    async def drop_job(self, request: Request) -> Response:
        self._job(request).cancel()
        name = request.path_params["job"]
        del self.jobs[name]
        return Json({"job": name})

    def _job(self, request: Request) -> Job:
        name = request.path_params["job"]
        if name not in self.jobs:
            raise Refusal(
                "missing",
                f"there is no job {name[:40]!a}",
                "begin one with /api/v1/red, /api/v1/ablations or /api/v1/landscape",
            )
        return self.jobs[name]


def cancel_if_unread(job: Job) -> None:
    if not job.events.n_readers:
        job.cancel()


def about(served: Served, step: int | None) -> dict[str, Any]:
    """What every tensor says of where it comes from."""
    changes = {} if served.change is None else {"change": dataclasses.asdict(served.change)}
    return {"model": served.id, "step": step} | changes


async def answer_of(job: Job, request: Request) -> Response:
    """The answer that the job comes to. If the client goes away before, so does the job. Raises its error."""
    try:
        await first_of(asyncio.wrap_future(job.answer), asyncio.create_task(gone(request.receive)))
        if not job.is_done:
            raise Cancelled("the client has gone")
        answer: Response = job.answer.result()
        return answer
    finally:
        job.cancel()
