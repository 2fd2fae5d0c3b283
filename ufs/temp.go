package ufs

import (
	"crypto/rand"
	"encoding/hex"
	"hash/fnv"

	"github.com/freshet-io/freshet"
)

// UploadPrefix starts the names, without a directory, of the temporary files of op
// for key, in storages where an upload is a file that gets its name at the end.
func UploadPrefix(key string, op freshet.OpID) string {
	h := fnv.New32a()
	h.Write([]byte(key))
	return TempPrefix + op.String() + "." + hex.EncodeToString(h.Sum(nil)) + "."
}

// UploadName returns a new name that starts with UploadPrefix, another one for each
// attempt: one that was given up for dead must never publish the half-written file
// of the next.
func UploadName(key string, op freshet.OpID) string { return UploadPrefix(key, op) + rand.Text()[:10] }
