import pytest
from lamp import IsLit, Lamp, SwitchOn
from trio.testing import MockClock

from autonomy_trio.errors import Denied
from autonomy_trio.testing import Faults, open_test_fabric


async def test_others_may_look_and_not_touch(autojump_clock: MockClock) -> None:
    async with open_test_fabric() as fabric, fabric.open_node([Lamp]) as home, fabric.open_node() as street:
        lamp = street.ref(home.address("lamp"), Lamp)
        assert not await lamp.ask(IsLit())
        with pytest.raises(Denied):
            await lamp.ask(SwitchOn())


async def test_a_slow_network_loses_nothing(autojump_clock: MockClock) -> None:
    faults = Faults(duplicate=0.3, delay=1.0)
    async with (
        open_test_fabric(faults, seed=7) as fabric,
        fabric.open_node([Lamp]) as home,
        fabric.open_node() as street,
    ):
        lamp = street.ref(home.address("lamp"), Lamp)
        for _ in range(20):
            assert not await lamp.ask(IsLit())
