// The live order book.
import { OrderPage } from "./ui/orderpage.ts";

new OrderPage();
