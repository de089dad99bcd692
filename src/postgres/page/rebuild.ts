/**
 * Rewriting a page from its own old content: the old bytes go to a scratch page that stays valid until the next
 * rebuild, and the page starts over empty with its special area kept (PageGetTempPageCopySpecial and
 * PageRestoreTempPage of PostgreSQL storage/page/bufpage.c, the other way round).
 */
import { dataViewOf } from "../../kit/bytes.ts";
import { copyBytes } from "../../kit/copy.ts";
import { PAGE_SIZE, checkPageHeader, initPage, pageSpecial } from "./page-layout.ts";

/** The page as it was before `startRebuild`. */
export const oldPage = new Uint8Array(PAGE_SIZE);
export const oldView = dataViewOf(oldPage);

/** Copies the page to `oldPage` and empties it, special area kept. @throws StrataError corrupt `corrupt-page` */
export function startRebuild(page: Uint8Array, view: DataView): void {
  checkPageHeader(view);
  copyBytes(page, 0, oldPage, 0, PAGE_SIZE);
  const special = pageSpecial(view);
  initPage(page, view, PAGE_SIZE - special);
  copyBytes(oldPage, special, page, special, PAGE_SIZE - special);
}
