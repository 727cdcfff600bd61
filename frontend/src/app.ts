// Starts what the page at hand needs.
import { accountsPage } from "./ui/accountspage.ts";
import { menus } from "./ui/menus.ts";
import { OrderPage } from "./ui/orderpage.ts";
import { themeButton } from "./ui/theme.ts";

const PAGES: Record<string, () => void> = {
  orders: () => void new OrderPage(),
  accounts: accountsPage,
};

themeButton();
menus();
PAGES[document.body.dataset["page"] ?? ""]?.();
