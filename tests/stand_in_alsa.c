/* A type of ALSA device for tests: opens like the null device, as often as $STAND_IN_OPENS says, and then fails.
 *
 * Every opening adds a byte to the file $STAND_IN_LOG. One beyond the limit, or any at all while the limit is 0, fails with the
 * error number $STAND_IN_ERRNO, as the driver of a sound card does that is in use (EBUSY) or was unplugged (ENODEV).
 */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

int snd_pcm_open(void **pcm, const char *name, int stream, int mode);

/* alsa-lib looks for this name, to know that the library was built for it. */
char __snd_pcm_stand_in_open_dlsym_pcm_001;

int _snd_pcm_stand_in_open(void **pcm, const char *name, void *root, void *conf, int stream, int mode)
{
    int log = open(getenv("STAND_IN_LOG"), O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (log < 0 || write(log, ".", 1) != 1)
        return -EIO;
    off_t opened = lseek(log, 0, SEEK_END);
    close(log);
    if (opened > atoi(getenv("STAND_IN_OPENS")))
        return -atoi(getenv("STAND_IN_ERRNO"));
    return snd_pcm_open(pcm, "null", stream, mode);
}
