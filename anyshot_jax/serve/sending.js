// Changes of a model that files are sent for.

import { ask, groups } from '/parts.js';
import { note, say, work } from '/work.js';

// A function (reason, [[address, fields, files], ...], then): sends the files in groups. One that
// can't be read doesn't keep the others out. Where some came in, `then` is called, and all that was
// asked is asked again.
export function sending(state, ready, show, again) {
  return (reason, all, then = () => {}) => work(reason, async (tell) => {
    if (!await ready) return false;
    const problems = [];
    let some = false;
    const send = async (address, fields, group) => {
      try {
        const found = await ask(address, [...fields, ...group.map((one) => ['images', one.file])]);
        for (const [kind, of] of found.odd) note(kind, of);
        show(found);
        some = true;
      } catch (error) {
        if (group.length > 1) for (const one of group) await send(address, fields, [one]);
        else {
          problems.push(error.message);
          if (group.length) note('files that could not be taken', group[0].path);
        }
      }
    };
    const { images, bytes } = state.limits;
    const parts = all.flatMap(([address, fields, files]) => (
      files.length ? groups(files, images, bytes * 0.95) : [[]]
    ).map((group) => [address, fields, group]));
    for (const [i, part] of parts.entries()) {
      tell(parts.length > 1 ? `${reason}: part ${i + 1} of ${parts.length}` : reason);
      await send(...part);
    }
    say(problems.slice(0, 5).join('\n'), problems.length > 0);
    if (some) {
      then();
      again();
    }
    return some;
  });
}
