from brokersim.world import Settings
from xts_harness import events_until, next_event, serving, story


@story
async def test_an_order_from_placing_to_filled():
    async with serving(settings=Settings(reply_delay=0.005, push_delay=0.005), flowing=True) as desk:
        token = await desk.log_in()
        async with desk.socket(token) as socket:
            assert await next_event(socket) == ("joined", "Socket joined successfully!")

            order_id = await desk.place(token, limitPrice=1)
            await events_until(socket, "order", "New")
            await desk.ok("DELETE", "/orders", token=token, params={"appOrderID": order_id})
            await events_until(socket, "order", "Cancelled")

            order_id = await desk.place(token, orderType="MARKET", limitPrice=0)
            events = await events_until(socket, "trade", "Filled")

        statuses = [row["OrderStatus"] for name, row in events if name == "order"]
        assert statuses[:2] == ["PendingNew", "New"]
        assert statuses[-1] == "Filled"
        assert await desk.statuses(token, order_id) == statuses
