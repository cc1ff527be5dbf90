"""How large an upload may be, for every page: what is more is read and dropped, so that the browser gets the
answer, and the page can say so. Uploads of people who have not signed in are dropped from the first byte."""

from django.core.files.uploadhandler import FileUploadHandler, SkipFile

LARGEST = 1024**3  # bytes
TOO_LARGE = "upload_was_too_large"  # of a request
A_FORM = 1024**2  # what else a form may hold


class UploadLimit(FileUploadHandler):
    chunk_size = 1024 * 1024

    def handle_raw_input(self, input_data, META, content_length, boundary, encoding=None):
        known = getattr(self.request, "user", None)
        too_large = content_length > LARGEST + A_FORM
        self.dropped = too_large or not (known and known.is_authenticated)
        self._say(too_large)

    def new_file(self, *args, **kwargs) -> None:
        super().new_file(*args, **kwargs)
        self.size = 0
        if self.dropped:
            raise SkipFile

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes:
        self.size += len(raw_data)
        if self.size > LARGEST:
            self._say(True)
            raise SkipFile
        return raw_data

    def file_complete(self, file_size: int) -> None:
        return None

    def _say(self, too_large: bool) -> None:
        """To the view, which tells whoever sent it."""
        setattr(self.request, TOO_LARGE, too_large)
