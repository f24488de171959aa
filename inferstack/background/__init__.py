"""What has time: duties that run every few minutes or hours, and the only home of Celery.

Nothing here holds the truth: a message of Celery only says that a duty is due. Each duty finds out
by itself what there is to do, is safe to repeat and to run twice at once, and what was missed is
done at the next turn.
"""
