// Package hotkeys keeps a list of a cache's hottest keys in a file, so that a cold start knows what it will be asked for.
//
// A member that starts with nothing asks the origin for everything. It could know what it will be asked for first,
// because it was asked for the same before. So it keeps a list of its hottest keys in a file. It writes the file every
// minute, when its node leaves and when it closes. After a start it warms the keys on the list, at the lowest class, so
// that real misses go first.
//
// The hottest keys are those that spare the origin most: how often a key is asked for, times what its load takes. Each
// member lists the keys that it owns, so all lists together are the cluster's. While a list is being warmed it is not
// replaced by a worse one, and keys that could not be warmed stay on it as long as there is room.
//
// Invariants:
//
//   - A list that was not warmed to its end stays as it is.
//   - A file is replaced as a whole or not at all: a new one is written beside it, synced and renamed.
//   - A damaged file, or one of another namespace, is a warning, not an error: the cache starts without it.
//   - No file has more than MaxKeys keys or MaxFile bytes, and reading one allocates no more than that.
//   - Trouble with writing is logged once, until its cause changes or it is over.
package hotkeys
