_Value = int | float | str | bool | list[int] | list[float] | list[str] | list[bool]

class Parameter:
    def __init__(self, name: str, value: _Value, *, value_type: type[_Value] | None = None) -> None: ...
