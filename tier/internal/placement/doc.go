// Package placement remembers which member owned which partition, and what that explains.
//
//   - A History answers three questions about a key that this node owns now: which member owned it before, which one
//     before that, and which member stood in for an owner that was lost. A member that has restarted since has nothing and is
//     not asked, and neither is a member that started after this node. The question for the owner before that passes over members
//     that started together, within two minutes of one another: none of them had the other's keys.
//   - A Candidate that does not answer is left alone for a growing pause; one whose answers bring nothing is not asked.
//   - A Cause says why a fill was needed, as the ledger of misses counts it.
//   - An Isolation decides whether this node has lost sight of more than half of the last stable view.
//
// Decisions depend on views and times alone: nothing here calls another member. All methods are safe for concurrent use.
package placement
