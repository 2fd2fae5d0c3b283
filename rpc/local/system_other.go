//go:build !linux

package local

import (
	"errors"
	"net"
	"os"

	"github.com/freshet-io/freshet"
)

// Supported says whether this system has what a local read needs.
const Supported = false

var errSystem = errors.New("this system has no local reads")

func peerUser(*net.UnixConn) (uint32, error)                        { return 0, errSystem }
func rights(*os.File) []byte                                        { return nil }
func rightsRoom() []byte                                            { return nil }
func readMessage(*net.UnixConn, []byte, []byte) (int, []int, error) { return 0, nil, errSystem }
func closeAll([]int)                                                {}
func stampOf(int) (freshet.FileStamp, error)                        { return freshet.FileStamp{}, errSystem }
func readFull(int, []byte, int64) error                             { return errSystem }
func newRoom(int) (*os.File, []byte, error)                         { return nil, nil, errSystem }
func mapRoom(int, int) ([]byte, error)                              { return nil, errSystem }
func unmapRoom([]byte)                                              {}
