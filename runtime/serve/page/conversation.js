// A conversation: questions that build on the answers before.

/** What a follow-up to an answer goes on from. `request` and `said`: what was asked and answered last. */
export function conversationAfter(request, said, regions) {
  const assigned = new Map(request.about[0]);
  const turns = [...(request.body.turns ?? []), { question: request.question, answer: said.text }];
  const drawn = [...assigned.keys()].map((number) => regions.get(number));
  return { assigned, turns, regions: request.body.regions, drawn };
}

/** Whether the regions are still those that the conversation is about. */
export const isAbout = (conversation, regions) =>
  conversation.drawn.every((region) => region !== undefined && regions.get(region.number) === region);
