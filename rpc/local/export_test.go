package local

// DecodeAnswer and DecodeRequest read what came over the socket.
func DecodeAnswer(b []byte) (isLoan bool, chunks int, length, size int64, err error) {
	a, err := decodeAnswer(b)
	return a.isLoan, len(a.layout.Sums), a.layout.Length, a.layout.ChunkSize, err
}

// DecodeRequest is as above.
func DecodeRequest(b []byte) error {
	_, err := decodeRequest(b)
	return err
}
