"""`@task.gristmill`: the TaskFlow way to run a command. The function returns the arguments, the task its result."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar

from airflow.sdk import Context
from airflow.sdk.bases.decorator import DecoratedOperator, TaskDecorator, determine_kwargs, task_decorator_factory
from airflow.sdk.definitions.context import context_merge
from airflow.sdk.exceptions import AirflowFailException

from gristmill.airflow.base import GristmillOperator


class _GristmillDecoratedOperator(DecoratedOperator, GristmillOperator):
    template_fields: Sequence[str] = (*DecoratedOperator.template_fields, *GristmillOperator.template_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = dict(DecoratedOperator.template_fields_renderers)
    custom_operator_name: str = "@task.gristmill"
    overwrite_rtif_after_execution: bool = True

    def __init__(
        self,
        *,
        python_callable: Callable[..., Sequence[str]],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(python_callable=python_callable, op_args=op_args, op_kwargs=op_kwargs, arguments=[], **kwargs)

    def execute(self, context: Context) -> Any:
        context_merge(context, self.op_kwargs)
        found = self.python_callable(*self.op_args, **determine_kwargs(self.python_callable, self.op_args, context))
        if isinstance(found, str) or not isinstance(found, Sequence) or not found:
            raise AirflowFailException(
                f"the function returned {found!r}; it must return the command and its arguments, such as ['run', 'docs.yaml']"
            )
        self.arguments = [str(each) for each in found]
        self.render_template_fields(context)
        return GristmillOperator.execute(self, context)


def gristmill_task(python_callable: Callable[..., Sequence[str]] | None = None, **kwargs: Any) -> TaskDecorator:
    """A task that runs the gristmill command whose arguments the function returns; further arguments are GristmillOperator's.

    The result is small: for run, plan, validate and show it is what the operators for them return.
    """
    return task_decorator_factory(
        python_callable=python_callable, decorated_operator_class=_GristmillDecoratedOperator, **kwargs
    )
